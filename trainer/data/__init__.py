"""Pictures and captions on their way to batches; only `cache` and `batches` import torch."""
