"""GaitLLM: a frozen encoder and a frozen language model."""
