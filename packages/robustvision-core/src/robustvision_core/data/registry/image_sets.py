"""Image sets by name."""

from __future__ import annotations

import os
from typing import Any

from robustvision_core.data.image_set import ImageSet
from robustvision_core.data.reading.image_files import ImageFiles
from robustvision_core.data.registry.table import Registry, Source
from robustvision_core.errors import UserError

TRAIN_VAL_TEST = ("train", "val", "test")

IMAGE_SETS: Registry[ImageSet] = Registry(
    "data set",
    "robustvision.data",
    {
        "glyphs": Source(
            "procedural characters, 240 + 80 + 80 classes, grey, offline; options per_class, size, seed",
            ".offline.glyphs:load_glyphs",
            TRAIN_VAL_TEST,
        ),
        "shapes": Source(
            "rendered coloured objects of 10 classes, 32x32 RGB, offline; options count, seed",
            ".offline.shapes:load_shapes",
        ),
        "sprites": Source(
            "two rotated figures, upright or upside down, 4 classes, RGB, offline; "
            "options degrees, modes, size, count, seed, npz",
            ".offline.sprites:load_sprites",
        ),
        "cifar-10": Source(
            "photos of 10 classes, 32x32 RGB, 50,000 + 10,000 (Krizhevsky 2009)", ".sources.cifar:load_cifar10"
        ),
        "cifar-100": Source(
            "photos of 100 classes, 32x32 RGB, 50,000 + 10,000 (Krizhevsky 2009); option coarse",
            ".sources.cifar:load_cifar100",
        ),
        "digits": Source(
            "1,797 real handwritten digits, 8x8 grey, offline (scikit-learn); option size",
            ".sources.digits:load_digits",
        ),
        "csv": Source(
            "your images, listed in a CSV of columns file, label and optionally split; options image_size, grey, "
            "max_gib, own_classes",
            ".sources.listed:load_csv",
            TRAIN_VAL_TEST,
            takes_path=True,
            files=".sources.listed:list_csv",
        ),
        "folder": Source(
            "your images, one subfolder a class; options image_size, grey, max_gib",
            ".sources.folder:load_folder",
            TRAIN_VAL_TEST,
            takes_path=True,
            files=".sources.folder:list_folder",
        ),
        "hf": Source(
            "a set that Hugging Face datasets saved to disk; options image_size, grey, max_gib, own_classes",
            ".sources.arrow:load_hf",
            TRAIN_VAL_TEST,
            takes_path=True,
            files=".sources.arrow:list_hf",
        ),
        "parquet": Source(
            "your Parquet files of images and labels; options image_size, grey, max_gib, own_classes",
            ".sources.arrow:load_parquet",
            TRAIN_VAL_TEST,
            takes_path=True,
            files=".sources.arrow:list_parquet",
        ),
        "webdataset": Source(
            "your tar shards of images and labels; options image_size, grey, max_gib, own_classes",
            ".sources.shards:load_webdataset",
            TRAIN_VAL_TEST,
            takes_path=True,
            files=".sources.shards:list_webdataset",
        ),
        "svhn": Source(
            "house numbers cropped to digits, 32x32 RGB, 73,257 + 26,032 (Netzer et al. 2011)",
            ".sources.house_numbers:load_svhn",
        ),
        "usps": Source("envelope digits, 16x16 grey, 7,291 + 2,007 (Hull 1994)", ".sources.house_numbers:load_usps"),
        "mnist": Source(
            "handwritten digits, 28x28 grey, 60,000 + 10,000 (LeCun et al. 1998)", ".sources.idx:load_mnist"
        ),
        "fashion-mnist": Source(
            "photos of clothes, 28x28 grey, 60,000 + 10,000 (Xiao et al. 2017)", ".sources.idx:load_fashion_mnist"
        ),
        "kmnist": Source(
            "cursive Japanese characters, 28x28 grey, 60,000 + 10,000 (Clanuwat et al. 2018)",
            ".sources.idx:load_kmnist",
        ),
        "mnist-m": Source(
            "MNIST on crops of photos, 28x28 RGB (Ganin and Lempitsky 2015); options size, seed, binarise, photos",
            ".sources.mnist_m:load_mnist_m",
        ),
        "fashion-mnist-m": Source(
            "Fashion-MNIST on crops of photos, 28x28 RGB; options size, seed, binarise, photos",
            ".sources.mnist_m:load_fashion_mnist_m",
        ),
        "mnist-m-procedural": Source(
            "MNIST on procedural colour backgrounds, 28x28 RGB; options size, seed, binarise",
            ".sources.mnist_m:load_mnist_m_procedural",
        ),
        "fashion-mnist-m-procedural": Source(
            "Fashion-MNIST on procedural colour backgrounds, 28x28 RGB; options size, seed, binarise",
            ".sources.mnist_m:load_fashion_mnist_m_procedural",
        ),
        "mnist-m-released": Source(
            "MNIST-M from the authors' archive, RGB (Ganin and Lempitsky 2015); option size",
            ".sources.mnist_m_released:load_mnist_m_released",
        ),
        "npz": Source(
            "your NumPy archive with images and labels; option layout",
            ".sources.npz:load_npz",
            TRAIN_VAL_TEST,
            takes_path=True,
        ),
        "omniglot": Source(
            "characters of 50 alphabets, 964 + 659 classes of 20, grey (Lake et al. 2015); option size",
            ".sources.omniglot:load_omniglot",
        ),
        "cifar-10-lt": Source(
            "CIFAR-10 with a long-tailed training set of 20,431; option rho", ".sources.selections:load_cifar10_lt"
        ),
        "rot-mnist-lt": Source(
            "MNIST rotated at random, with a long-tailed training set; options rho, degrees, size, seed",
            ".sources.selections:load_rot_mnist_lt",
        ),
        "mnist-01569": Source(
            "the digits 0, 1, 5, 6 and 9 of MNIST, of which only 6 and 9 look like another upside down; "
            "options degrees, size, seed",
            ".sources.selections:load_mnist_01569",
        ),
        "tiny-imagenet": Source(
            "photos of up to 200 classes, 64x64 RGB, 500 + 50 each (Le and Yang 2015); option size",
            ".sources.tiny_imagenet:load_tiny_imagenet",
        ),
        "tiny-imagenet-few-shot": Source(
            "the Tiny ImageNet classes of miniImageNet, split by class (Ravi and Larochelle 2017); option size",
            ".sources.tiny_imagenet:load_few_shot",
            TRAIN_VAL_TEST,
        ),
    },
)

names = IMAGE_SETS.names
register = IMAGE_SETS.register


def list_files(name: str, split: str = "train", root: str | os.PathLike[str] | None = None) -> ImageFiles:
    """The images of a set, not decoded, for `FileBatches`: of folder, csv, parquet, hf and webdataset.

    Args:
        name: As for `load`.
        split: As for `load`.
        root: As for `load`.

    Raises:
        UserError: No such set or split, or its images are not in files.
        DataError: As `load`; MissingSplitError where only the split is missing.
    """
    source, query = IMAGE_SETS.query(name, split, root)
    listed = source.lister()
    if listed is None:
        known = sorted(f"{kind}:PATH" for kind, one in IMAGE_SETS.table.items() if one.files)
        raise UserError(f"{name} is not read image by image: only {', '.join(known)} are")
    return listed(query)


def in_files(name: str) -> bool:
    """Whether `list_files` can list the images of a set."""
    return bool(IMAGE_SETS.source(name.partition(":")[0]).files)


def options_of(name: str) -> list[str]:
    """Names of the options that `load` takes for a set, as `image_size` of `folder:PATH`.

    Raises:
        UserError: No such set.
    """
    return IMAGE_SETS.source(name.partition(":")[0]).options()


def load(
    name: str,
    split: str = "train",
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    **options: Any,
) -> ImageSet:
    """Load a data set.

    Args:
        name: One of `names`.
        split: `train` or `test`; some sets have `val`.
        root: The folder of all data sets; None takes the variable `ROBUSTVISION_DATA`, else
            `~/.cache/robustvision`.
        download: Fetch what is missing, where the source can.
        options: What the source takes besides, as `size` of digits.

    Raises:
        UserError: No such set, split or option.
        DataError: Files are missing, truncated or hold what they must not; the message names the file.
    """
    return IMAGE_SETS.load(name, split, root, download, options)
