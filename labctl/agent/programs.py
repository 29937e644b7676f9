"""Running programs, each in a session of its own: Ctrl-C reaches labctl, which stops between steps, and not them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

from labctl.agent.call import Call, Reply, answer

NOT_FOUND = 127
TIMED_OUT = 124
CHUNK = 64 << 10
LAST_WORDS = 2.0
"""Seconds that a killed program's output is waited for: others may still hold its pipes."""


def run(call: Call) -> Reply:
    """Run ``argv`` with ``env`` added, in ``cwd``, for ``timeout`` seconds at most; the body is its standard input.

    Returns ``code`` (127: no such program, 124: out of time), and in the body first ``out`` bytes of standard output,
    then standard error.
    """
    argv = [str(word) for word in call.values["argv"]]
    try:
        process = _start(call, argv, stderr=subprocess.PIPE, stdin=subprocess.PIPE)
    except OSError as error:
        return _said(NOT_FOUND, f"{argv[0]}: {error.strerror}")
    timeout = float(call.values["timeout"])
    with call.ended_by(lambda: _signal(process, signal.SIGTERM)):
        try:
            out, err = process.communicate(call.body, timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill(process)
            return _said(TIMED_OUT, f"{argv[0]}: no end after {timeout:g} s")
    return answer(code=process.returncode, out=len(out), body=out + err)


def stream(call: Call) -> Reply:
    """Run ``argv`` and send what it prints as events, until it ends or the call is cancelled."""
    argv = [str(word) for word in call.values["argv"]]
    with _start(call, argv, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL) as process:
        pipe = process.stdout
        with call.ended_by(lambda: _signal(process, signal.SIGTERM)):
            while pipe is not None and (chunk := os.read(pipe.fileno(), CHUNK)):
                call.event({}, chunk)
    return answer(code=process.returncode)


def _start(call: Call, argv: list[str], *, stderr: int, stdin: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, **call.values.get("env", {})},
        cwd=call.values.get("cwd"),
        start_new_session=True,
    )


def _said(code: int, text: str) -> Reply:
    return answer(code=code, out=0, body=text.encode())


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, number)


def _kill(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=LAST_WORDS)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
