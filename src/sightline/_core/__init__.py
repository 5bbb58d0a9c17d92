"""What all packages share: registries, strict YAML, whole files, seeds, progress bars, tensor checks."""
