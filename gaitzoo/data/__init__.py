"""What models read: pre-treatment, files, augmentation, rankings of labels."""

from gaitzoo.data.config import resolve_data_config, resolve_model_data_config

__all__ = ["resolve_data_config", "resolve_model_data_config"]
