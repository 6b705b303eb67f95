"""Small trees of walks in the layouts of the public data sets."""

import pickle

import numpy as np
from PIL import Image

from gaitzoo.synthetic import render_walk, sample_identity

# Layout -> folders of walks, with the identity, type and view that each path means.
TREES = {
    "casiab": {
        "001/nm-01/090": ("001", "nm-01", "090"),
        "075/cl-02/018": ("075", "cl-02", "018"),
    },
    "oumvlp": {
        "Silhouette_090-00/00001": ("00001", "00", "090"),
        "Silhouette_015-01/00002": ("00002", "01", "015"),
    },
    "grew": {
        "train/00001/4XPn5Z28": ("00001train", "00", "4XPn5Z28"),
        "test/gallery/00001/79XJefi8": ("00001", "01", "79XJefi8"),
        "test/gallery/00001/A0YYYYYY": ("00001", "02", "A0YYYYYY"),
        "test/probe/01ZqKlcw": (None, "03", "01ZqKlcw"),
    },
    "gait3d": {
        "2D_Silhouettes/0000/camid0_videoid2/seq0": ("0000", "camid0_videoid2", "seq0"),
        "2D_Silhouettes/0001/camid9_videoid2/seq1": ("0001", "camid9_videoid2", "seq1"),
    },
    "ccpg": {
        "CCPG_G_SIL/001/U0_D0_BG/01_0": ("001", "U0_D0_BG", "01_0"),
        "CCPG_G_SIL/001/U3_D3/02_0": ("001", "U3_D3", "02_0"),
    },
    "sustech1k": {
        "0000/00-nm/090": ("0000", "00-nm", "090"),
        "0001/01-bg/045-far": ("0001", "01-bg", "045-far"),
    },
    "casiae": {
        "001/H-scene1-nm-1/090": ("001", "H-scene1-nm-1", "090"),
        "002/L-scene3_s-cl-2/000": ("002", "L-scene3_s-cl-2", "000"),
    },
    "opengait": {"7/a/10_3": ("7", "a", "10_3"), "8/b/10_4": ("8", "b", "10_4")},
    "folders": {"ann/monday": ("ann", "monday", ""), "bob/tuesday": ("bob", "tuesday", "")},
}


def raw_walk(person=0, seed=0, frames=6, size=(96, 128)):
    """A walk as a segmenter would give it, uint8 ``[T, H, W]``."""
    identity = sample_identity(20_000 + person)
    walk = render_walk(identity, frames=frames, seed=seed, size=size, aligned=False)
    return walk.silhouettes.numpy()


def write_images(folder, frames):
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:03d}.png")


def write_pickle(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(np.ascontiguousarray(array)))


def write_tree(root, layout):
    """A tree of images; gives what each path means, by path."""
    for number, path in enumerate(TREES[layout]):
        write_images(root / path, raw_walk(number))
        if layout == "grew":  # lies beside the folders of the walks there
            gei = root / path
            Image.fromarray(raw_walk(number)[0]).save(gei.parent / f"{gei.name}_gei.png")
    return TREES[layout]
