"""Parts of a model for fine-tuning: the frozen trunk, the portion behind a layer, the parameters by depth."""
