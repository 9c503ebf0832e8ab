"""Whether the pseudo-labels can be trusted: records, warnings, and validators that need no target label."""
