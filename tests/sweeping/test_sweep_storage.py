"""Trials whose process died, or whose files could not be written, are tried again, once, with their values."""

import time

import pytest
from optuna.trial import TrialState

from sightline.sweeping import storage
from sightline.sweeping.storage import attempts, identity, open_study, retry_stale, retry_unwritten

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")


@pytest.fixture
def study(made, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "GRACE", 0.2)
    return open_study(made(sampler="random", trials=2), f"sqlite:///{tmp_path / 'sweep.db'}")


def test_a_trial_that_died_before_its_first_sign_of_life_is_tried_again(study):
    begun = study.ask()
    value = begun.suggest_float("x", 0, 1)
    retry_stale(study)  # sees it for the first time
    assert study.trials[0].state == TrialState.RUNNING
    time.sleep(0.3)
    retry_stale(study)
    assert study.trials[0].state == TrialState.FAIL
    (last,) = attempts(study)
    assert (last.number, last.state, identity(last)) == (1, TrialState.WAITING, 0)
    retry_stale(study)
    assert len(study.trials) == 2
    assert study.ask().suggest_float("x", 0, 1) == value


def test_a_trial_with_signs_of_life_resumes(study):
    study._storage._backend.grace_period = (
        60  # SQLite counts whole seconds: a sign of life may look a second old at once
    )
    begun = study.ask()
    for _ in range(3):
        study._storage.record_heartbeat(begun._trial_id)
        retry_stale(study)
        time.sleep(0.1)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]


@pytest.mark.parametrize("unwritten", [True, False])
def test_a_trial_that_failed_for_a_full_disk_is_tried_again(study, unwritten):
    begun = study.ask()
    begun.set_user_attr("unwritten", unwritten)
    study.tell(begun, state=TrialState.FAIL)
    retry_unwritten(study)
    retry_unwritten(study)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL, *([TrialState.WAITING] if unwritten else [])]
