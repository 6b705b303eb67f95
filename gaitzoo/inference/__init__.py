"""Embedding, fused models, export and identification."""
