"""The label-taint forward: from an example batch to a `UnitGraph`."""
