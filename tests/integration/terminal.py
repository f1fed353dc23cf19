"""Runs a program on a pseudo terminal, and shows what a person would see there."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

SEQUENCE = re.compile(r"\x1b\[([\d;]*)([A-Za-z])")


class Screen:
    """What uvmirror needs of a terminal: line ends, cursor up, erasing, wrapping and scrolling."""

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.lines, self.row, self.column = [""], 0, 0

    def feed(self, text):
        at = 0
        while at < len(text):
            match = SEQUENCE.match(text, at)
            if match:
                self._control(match[1], match[2])
                at = match.end()
                continue
            assert text[at] != "\x1b", f"an unknown sequence: {text[at:at + 20]!r}"
            self._put(text[at])
            at += 1

    def _control(self, number, what):
        if what == "A":
            top = max(0, len(self.lines) - self.rows)
            self.row = max(top, self.row - int(number or 1))
        elif what == "K":
            self.lines[self.row] = self.lines[self.row][:self.column]
        elif what == "J":
            self.lines[self.row] = self.lines[self.row][:self.column]
            del self.lines[self.row + 1:]
        else:
            assert what == "m", f"an unknown sequence: {what}"

    def _put(self, char):
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self._next_line()
        else:
            if self.column == self.columns:
                self.column = 0
                self._next_line()
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[:self.column] + char + line[self.column + 1:]
            self.column += 1

    def _next_line(self):
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.lines)


class Terminal:
    """`screens` are the texts of the screen after each piece of output; `raw` is all of it."""

    def __init__(self, command, env, rows=24, columns=80):
        self.screen, self.screens, self.raw = Screen(rows, columns), [], ""
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *map(str, command)], stdin=slave, stdout=slave, stderr=slave,
            env={"TERM": "xterm", **env})
        os.close(slave)

    def _read(self):
        """False at the end."""
        ready, _, _ = select.select([self.master], [], [], 1)
        try:
            data = os.read(self.master, 65536) if ready else b"-"
        except OSError:
            return False
        if ready and data:
            self.raw += data.decode()
            self.screen.feed(data.decode())
            self.screens.append(self.screen.text)
        return bool(data)

    def type(self, text):
        os.write(self.master, text.encode())

    def until(self, pattern, seconds=60):
        """Reads on until the screen matches."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.screen.text, re.M):
            assert time.monotonic() < end and self._read(), f"no {pattern}:\n{self.screen.text}"

    def end(self):
        """Reads all there is; returns the exit status."""
        while self._read():
            pass
        os.close(self.master)
        return self.process.wait(timeout=60)
