"""One file a training method (LoRA, ...), found by being here."""
