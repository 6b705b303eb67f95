"""Whether a model explains the size of its file: numbers times bytes, and a share per tensor."""

import torch

import gaitzoo

# A tensor's share of pickle and zip: names, headers, rounding to 64 bytes.
LEAST, MOST = 395, 462


def authors_tensors(name, **changes):
    """Bytes and numbers of trained, fixed and counting tensors in the authors' layout."""
    with torch.device("meta"):
        model = gaitzoo.create_model(name, **changes)
    trained = [p.nbytes for p in model.parameters() if p.requires_grad]
    kept = [p.nbytes for p in model.parameters() if not p.requires_grad]
    in_file = model.state_dict()
    kept += [b.nbytes for key, b in model.named_buffers() if key in in_file]
    if name.startswith("gaitpart"):
        # 16 parts have convolutions of their own there, one grouped convolution each here.
        grouped = model.num_parts - 1
        trained += [0] * (4 * grouped)
    if name.startswith("swingait"):
        # A sixteenth part, and a table of int64 per attention.
        trained += [4 * 512 * 256 + 4 * 256 * model.num_classes + 2 * 4 * 256]
        kept += [2 * 4 * 256]
        kept += [8 * 45 * 45 for key, _ in model.named_buffers() if "relative_index" in key]
    return trained, kept


def bytes_per_tensor(name, copies, **changes):
    trained, kept = authors_tensors(name, **changes)
    rest = gaitzoo.model_info(name).size - copies * sum(trained) - sum(kept)
    return rest / (copies * len(trained) + len(kept))


def explains(name, copies, *, least=LEAST, most=MOST, **changes):
    """Whether weights with ``copies - 1`` numbers of an optimizer for each fill the file."""
    return least < bytes_per_tensor(name, copies, **changes) < most
