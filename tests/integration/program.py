"""Runs the real binary and looks at what it says."""

import json
import os
import subprocess

# What a sanitizer's report turns the exit status into: no documented code.
SANITIZER_EXIT = 99


class Result:
    def __init__(self, command, done):
        self.command = " ".join(command)
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    @property
    def lines(self):
        """The JSON objects of --json output: one per line and nothing else."""
        return [json.loads(line) for line in self.out.decode().splitlines()]

    def __str__(self):
        return (f"$ {self.command}\nexit code {self.code}\n--- standard output\n"
                f"{self.out.decode(errors='replace')[-4000:]}\n--- standard error\n"
                f"{self.err.decode(errors='replace')[-8000:]}")


class Program:
    """Call it with arguments, like the program. `code` is the exit status that must come."""

    def __init__(self, path):
        self.path = path

    def environment(self, **extra):
        env = dict(os.environ, LC_ALL="C.UTF-8", TZ="UTC", COLUMNS="80")
        env["ASAN_OPTIONS"] = f"detect_leaks=1:exitcode={SANITIZER_EXIT}"
        env["LSAN_OPTIONS"] = f"exitcode={SANITIZER_EXIT}:print_suppressions=0"
        env["UBSAN_OPTIONS"] = f"halt_on_error=1:print_stacktrace=1:exitcode={SANITIZER_EXIT}"
        env.update({name: str(value) for name, value in extra.items()})
        return env

    def __call__(self, *args, code=0, stdin=b"", env=None, timeout=300, cwd=None, wrap=()):
        command = [*map(str, wrap), self.path, *map(str, args)]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout,
                              env=self.environment(**(env or {})), cwd=cwd, check=False)
        return self.judge(Result(command, done), code)

    @staticmethod
    def judge(result, code):
        """What every run has to keep to; returns the result."""
        assert result.code != SANITIZER_EXIT and b"runtime error:" not in result.err, str(result)
        if code is not None:
            assert result.code == code, f"expected exit code {code}\n{result}"
        if result.code > 0:
            assert b"uvmirror: " in result.err or b"Usage: " in result.err, (
                f"an error without a message\n{result}")
        return result

    def start(self, *args, env=None, **options):
        """Starts it and returns the process."""
        return subprocess.Popen([self.path, *map(str, args)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, env=self.environment(**(env or {})),
                                **options)
