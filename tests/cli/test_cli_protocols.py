"""Trees in the official layouts, scored by the protocols of their data sets."""

import json

import pytest
from cli_world import TINY, walk
from dataset_trees import write_images

pytest_plugins = ["cli_fixtures"]

# Protocol -> folders of one person with the number {n}, and rows of the tables with what they have.
TREES = {
    "oumvlp": (
        [f"Silhouette_{v}-{s}/{{n:05d}}" for v in ("000", "090") for s in ("00", "01")],
        {("00", "miss"): (4, 4), ("00", "skip"): (4, 4)},
        {"rank1"},
    ),
    "grew": (
        [f"test/gallery/{{n:05d}}/video{v}xx" for v in "AB"],
        {("test", "all"): (2, 2)},
        {"rank1", "rank5", "rank10", "rank20"},
    ),
    "gait3d": (
        [f"2D_Silhouettes/{{n:04d}}/camid{c}_videoid2/seq0" for c in (0, 9)],
        {("test", "all"): (2, 2)},
        {"rank1", "rank5", "rank10", "mAP", "mINP"},
    ),
    "ccpg": (
        [
            f"CCPG_G_SIL/{{n:03d}}/{outfit}/{camera}_0"
            for outfit in ("U0_D0_BG", "U0_D0", "U0_D3", "U1_D0", "U1_D1", "U2_D2", "U3_D3")
            for camera in ("01", "02")
        ],
        {
            (condition, pairs): sizes
            for condition, sizes in {
                "CL": (8, 12), "UP": (4, 4), "DN": (4, 4), "BG": (4, 4),
            }.items()
            for pairs in ("cross_view", "all_views", "re_id")
        },
        {"rank1"},
    ),
    "sustech1k": (
        [
            f"{{n:04d}}/{kind}/{view}"
            for kind in ("00-nm", "01-nm", "01-bg", "02-cl", "03-ub", "04-nt")
            for view in ("000", "090")
        ],
        {
            (condition, "cross_view"): (sizes, 4)
            for condition, sizes in {
                "Normal": 4, "Bag": 4, "Clothing": 4, "Umbrella": 4, "Night": 4, "Overall": 20,
            }.items()
        },
        {"rank1", "rank5"},
    ),
    "ccgr": (
        [f"{{n}}/{kind}/{view}" for kind in ("NM1", "BG1") for view in ("10_3", "20_1")],
        {("test", "re_id"): (8, 8), ("test", "re_id_types"): (8, 8)},
        {"rank1", "rank5", "mAP", "mINP"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("protocol", list(TREES))
def test_official_trees_give_the_tables_of_their_papers(run, tmp_path, protocol):
    folders, wanted, scores = TREES[protocol]
    for number in (2, 4):
        for seed, folder in enumerate(folders):
            frames = walk(number, seed=seed, frames=3)
            write_images(tmp_path / "in" / folder.format(n=number), frames)
    more = ["--layout", "ccgr"] if protocol == "ccgr" else []
    if protocol == "gait3d":
        listed = {"TRAIN_SET": [], "TEST_SET": ["0002", "0004"]}
        listed["PROBE_SET"] = [f"{who}-camid0_videoid2-seq0" for who in listed["TEST_SET"]]
        (tmp_path / "Gait3D.json").write_text(json.dumps(listed))
        more = ["--partition", "Gait3D.json"]
    words = ["evaluate", "--data", "in", "--protocol", protocol, "--cache", "cache", *TINY, *more]
    code, out, err = run(*words, "--json", "scores.json")
    assert code == 0, err
    rows = json.loads((tmp_path / "scores.json").read_text())["rows"]
    both = protocol == "oumvlp"
    found = {
        (row["condition"], row["unmatched" if both else "pairs"]): (
            row["num_query"], row["num_gallery"],
        )
        for row in rows
    }  # fmt: skip
    assert found == wanted
    assert set(rows[0]["scores"]) == scores
    assert all(condition in out for condition, _ in wanted)
