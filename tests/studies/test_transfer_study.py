"""Tasks are what they are called, and a scaled classifier computes the same function."""

import numpy as np
import polars as pl
import pytest
import torch
from pathcounts.images import Part, digits
from transfer.experiment import run_setting
from transfer.findings import primary
from transfer.tasks import pooled, tasks
from transfer.vgg import SCALINGS, SIDE, SmallVgg, counted


def test_halves_are_of_different_classes():
    first, second = tasks("digits halves")
    whole = digits()
    assert len(first.train) + len(second.train) == len(whole.train)
    assert set(first.test.y.tolist()) == set(second.test.y.tolist()) == set(range(5))
    sevens = whole.train.x[whole.train.y == 7]
    assert torch.equal(second.train.x[second.train.y == 2], sevens)


def test_pooling_keeps_the_mean():
    part = Part(torch.rand(3, 784, generator=torch.Generator().manual_seed(0)), torch.zeros(3))
    small = pooled(part, 8)
    assert small.x.shape == (3, 64)
    torch.testing.assert_close(small.x.sum(dim=1) * 16, part.x.sum(dim=1))


def test_the_second_task_begins_with_the_first_ones_weights_and_a_new_head():
    found = run_setting("digits halves", range(2))
    assert found.filter(task=1)["arm"].unique().to_list() == ["transferred"]
    at = {
        (arm, epoch): found.filter(task=2, arm=arm, epoch=epoch)
        for arm in ("transferred", "fresh")
        for epoch in (0, 1)
    }
    assert (at["transferred", 0]["active"] != at["fresh", 0]["active"]).any()
    assert at["transferred", 1]["test_accuracy"].mean() > at["transferred", 0]["test_accuracy"].mean()
    assert found["printed"].to_list() == pytest.approx(found["any"].to_list())


def test_scalings_of_the_classifier_leave_the_function_and_change_e():
    x = torch.rand(40, SIDE**2, generator=torch.Generator().manual_seed(0))
    models = {name: SmallVgg(torch.Generator().manual_seed(1), s) for name, s in SCALINGS.items()}
    with torch.no_grad():
        outputs = {name: model.activations(x)[-1] for name, model in models.items()}
        e = {name: float(counted(model, Part(x, torch.zeros(40))).any) for name, model in models.items()}
    torch.testing.assert_close(outputs["good"], outputs["plain"])
    torch.testing.assert_close(outputs["low"], outputs["plain"])
    assert len(set(e.values())) > 1
    assert sum(p.numel() for p in models["plain"].parameters()) < 1_000_000


def test_every_claim_is_tested_in_its_settings():
    rng = np.random.default_rng(0)
    rows = [
        {"setting": "digits halves", "seed": seed, "arm": "transferred", "task": task, "epoch": epoch,
         "active": e, "any": e, "test_accuracy": rng.random()}
        for seed in range(6)
        for task, epoch, e in ((1, 9, 99.0), (2, 0, 50.0 + seed), (2, 1, 999.0), (2, 9, 9.0 + seed / 9))
    ]  # fmt: skip
    vgg = [
        {"scaling": name, "seed": seed, "epoch": epoch, "active": 10.0 ** (3 + k + seed / 99), "any": 9.0,
         "test_accuracy": 0.5 + 0.1 * k + seed / 999}
        for seed in range(5) for k, name in enumerate(("low", "plain", "good")) for epoch in (0, 3)
    ]  # fmt: skip
    found = {
        (r["claim"], r["count"]): r for r in primary(pl.DataFrame(rows), pl.DataFrame(vgg), {}).to_dicts()
    }
    assert found["rises", "any"]["mean"] == pytest.approx(1.0)
    assert found["falls_again", "any"]["verdict"] == "confirmed"
    assert found["foretells", "active"]["n"] == 6
    assert found["scaling_raises", "active"]["mean"] == pytest.approx(2.0, abs=0.05)
    assert found["scaling_trains", ""]["mean"] == pytest.approx(0.2)
