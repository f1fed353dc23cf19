"""libvirtd dies, comes back or hangs while an import or a cleanup is under way."""

import json
import os
import random
import signal
import time

import pytest

import scenarios

BEFORE, UNDER_WAY, COMMIT, AFTER = "before", "import", "commit", "after"


class Messages:
    """Counts the messages to libvirt, and notes how far the command is at each. At number `at` it calls
    `act`: the message is held until that is over. `act` may return a function for the time after that."""

    def __init__(self, at=0, act=None):
        self.at, self.act = at, act
        self.phases = []

    def phase(self):
        try:
            with open(scenarios.JOURNAL, encoding="utf-8") as file:
                return json.load(file)["phase"]
        except FileNotFoundError:
            return AFTER if {UNDER_WAY, COMMIT} & set(self.phases) else BEFORE

    def __call__(self, call):
        if not call.target.startswith("socket:"):
            return None
        self.phases.append(self.phase())
        return self.act() if len(self.phases) == self.at else None

    def moments(self, most):
        """Numbers of messages, of each phase up to `most`: the first, the last and some between."""
        found = []
        for phase in (BEFORE, UNDER_WAY, COMMIT, AFTER):
            numbers = [at for at, its in enumerate(self.phases, 1) if its == phase]
            found += [numbers[n - 1] for n in scenarios.spread(len(numbers), most)]
        return found


# ---- it dies ------------------------------------------------------------------------------------


def dies(host):
    """And is started again once the command has ended."""
    host.end_daemon()


def dies_at_work(host):
    """It has got the message; how far it comes with it is left to chance."""
    def end():
        time.sleep(random.random() / 200)
        host.end_daemon()
    return end


def restarts(host):
    host.end_daemon()
    host.start_daemon()


def disturb(scenario, what, most):
    host = scenario.host
    scenario.prepare()
    good = Messages()
    scenario.run(good, code=0)
    end = scenario.end()
    for at in good.moments(most):
        phase = good.phases[at - 1]
        scenario.prepare()
        before = host.view()
        disturbed = Messages(at, lambda: what(host))
        try:
            result = scenario.run(disturbed)
        finally:
            if what is not restarts and len(disturbed.phases) >= at:
                host.start_daemon()
        try:
            assert len(disturbed.phases) >= at, "this message was never sent"
            scenario.check()
            judge(result, phase)
            if what is restarts and phase == UNDER_WAY and scenario.command[0] == "import":
                check_settled(host, before, result)
            scenario.again()
            assert scenario.end() == end
            scenario.check()
        except AssertionError as problem:
            raise AssertionError(f"it {what.__name__} at message {at} of {len(good.phases)} ({phase}): "
                                 f"{problem}\n{result}") from problem


def judge(result, phase):
    """Only the last messages, the farewell, may not matter any more."""
    if result.code == 0:
        assert phase == AFTER or (phase == BEFORE and "clean" in result.command)
        return
    assert result.code == 7
    assert "systemctl status libvirtd" in result.err.decode().splitlines()[-1]


def check_settled(host, before, result):
    """There was somebody to be asked: nothing is left to the next run but what it has to finish."""
    if b"the next run will finish" in result.err:
        return
    assert not os.path.exists(scenarios.JOURNAL)
    assert host.view()[1:] == before[1:]


@pytest.mark.parametrize("most", [1, pytest.param(12, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", [scenarios.Import, scenarios.Clean, scenarios.Undo, scenarios.Finish])
@pytest.mark.parametrize("what", [
    dies, pytest.param(dies_at_work, marks=pytest.mark.long), restarts])
def test_it_goes_away(scenario, kind, what, most):
    disturb(scenario(kind), what, most)


# ---- it hangs -----------------------------------------------------------------------------------


class Hang:
    """Stops the daemon at a message, as one that waits for a disk that is gone. `mend`: it goes on when
    somebody asks it over another connection."""

    def __init__(self, host, at, mend):
        self.host, self.mend = host, mend
        self.messages = Messages(at, lambda: os.kill(host.daemon(), signal.SIGSTOP))
        self.sockets = []

    def go_on(self):
        os.kill(self.host.daemon(), signal.SIGCONT)

    def __call__(self, call):
        self.messages(call)
        if call.target.startswith("socket:") and call.target not in self.sockets:
            self.sockets.append(call.target)
            if self.mend and len(self.sockets) > 1:
                self.go_on()


def hang(scenario, mend):
    """While the image is uploaded; returns the import's result, and the end that it should have come to."""
    scenario.prepare()
    good = Messages()
    scenario.run(good, code=0)
    end = scenario.end()
    scenario.prepare()
    under_way = [at for at, phase in enumerate(good.phases, 1) if phase == UNDER_WAY]
    hangs = Hang(scenario.host, under_way[len(under_way) // 4], mend)
    try:
        result = scenario.run(hangs, code=7)
    finally:
        hangs.go_on()
    assert len(hangs.sockets) == 2, f"no other connection was tried\n{result}"
    return result, end


@pytest.mark.long
def test_it_hangs_for_a_while(scenario):
    """It is asked again, over another connection, and what was begun is undone."""
    scenario = scenario(scenarios.Import)
    before = scenario.host.view()
    result, end = hang(scenario, mend=True)
    check_settled(scenario.host, before, result)
    assert b"could not be undone" not in result.err, str(result)
    scenario.again()
    assert scenario.end() == end


@pytest.mark.long
def test_it_hangs(scenario):
    """What is left is said, and that the next run removes it."""
    scenario = scenario(scenarios.Import)
    result, end = hang(scenario, mend=False)
    assert result.err.count(b"could not be undone") == 1, str(result)
    assert b"the next 'uvmirror import' or 'uvmirror clean' removes" in result.err, str(result)
    assert os.path.exists(scenarios.JOURNAL)
    scenario.check()
    scenario.again()
    assert scenario.end() == end
