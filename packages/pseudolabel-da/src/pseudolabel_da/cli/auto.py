"""`--augment auto`: the augmentation of a run, chosen without a target label and written into its folder."""

from __future__ import annotations

import json
import pathlib
import sys

from robustvision_core.run.files import write_json
from robustvision_core.run.runtime import Runtime, channels_last
from torch import nn

from pseudolabel_da.algorithm.choosing import choose_augment
from pseudolabel_da.cli.data import AdaptationData
from pseudolabel_da.cli.recipes import TrainConfig
from pseudolabel_da.cli.testing import make_classifier

MOST = 3000  # samples of a domain that the choice looks at
LONGEST = 20  # epochs of its first phase: small parts of large sets need more of them


def with_augment(config: TrainConfig, data: AdaptationData, runtime: Runtime, folder: pathlib.Path) -> TrainConfig:
    """`config` with the augmentation that `auto` stands for, chosen once and read from `augment.json` from then on."""
    if config.training.augment != "auto":
        return config
    path = folder / "augment.json"
    if runtime.is_main and not path.exists():
        write_json(path, _chosen(config, data, runtime))
    name = runtime.from_main(json.loads(path.read_text(encoding="utf-8"))["name"] if runtime.is_main else "")
    return config.changed(augment=name)


def _chosen(config: TrainConfig, data: AdaptationData, runtime: Runtime) -> dict[str, object]:
    """The choice and its reasons, as JSON has them."""

    def network() -> nn.Module:
        made = make_classifier(config, data).network.to(runtime.device)
        channels_last(made)
        return made

    labelled, whole = data.labelled, len(data.labelled)
    assert labelled.labels is not None  # they are labelled
    choice = choose_augment(
        network,
        (labelled.inputs, labelled.labels),
        data.target.inputs,
        config.changed(augment="none", check="means").settings(),
        pretrain=min(max(config.pretrain, config.pretrain * whole // MOST, 1), LONGEST),
        epochs=config.epochs,
        most=MOST,
        said=_say,
    )
    _say(f"takes {choice.name}; reverse validation keeps {', '.join(choice.kept)}")
    return choice._asdict()


def _say(text: str) -> None:
    sys.stderr.write(f"pseudolabel-da: {text}\n")
