"""What models read: pre-treatment, files, augmentation, rankings of labels."""
