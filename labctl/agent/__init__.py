"""The program that labctl runs on a host: it reads and writes files, runs programs and asks URLs there.

It is sent over the connection each time (``labctl.hosts.bootstrap``) and lives as long as the connection; nothing is
installed. So it uses the standard library of Python 3.9 alone and nothing of labctl outside this package. On the
machine that labctl runs on, the same functions are called directly (``labctl.hosts.caller``).

To add an operation
===================
An operation is a function of a module of this package that takes a ``Call`` (``labctl.agent.call``) and returns a
``Reply``, made by ``answer``; and a line in ``labctl.agent.operations.OPERATIONS``, which says where it is and whether
it changes anything on the host (one that does is never repeated by itself after a broken connection)::

    # labctl/agent/fetch.py
    from labctl.agent.call import Call, Refusal, Reply, answer

    def fetch(call: Call) -> Reply:
        for chunk in ...:
            call.check()                                   # raises Cancelled once nobody wants it any more
            call.event({"done": done, "total": total})     # progress; reaches the caller while this goes on
        if free < needed:
            raise Refusal("no space", {"free": free})      # what the caller turns into a diagnostic
        return answer(digest=digest, size=size)

    # labctl/agent/operations.py
    "fetch": Operation("fetch", "fetch", changes=True),

It is called through the shell of any host, here or far away, from any thread::

    told = site.shell.call("fetch", {"url": url, "place": place}, event=progress, check=check)

``told`` is what ``answer`` was given. ``event`` is called in the calling thread for each event; ``check`` is called
every fifth of a second at least: when it raises, the operation is cancelled, waited for, and the exception goes on
(on this machine ``call.check`` raises it). Arguments and answers are JSON values. OSError arrives as the same OSError,
``Refusal`` as ``Refusal``. Large contents travel as bytes beside them: ``body=`` and ``call.body`` there, ``answer(...,
body=...)`` back. Import what is slow to import (``http.client``, ``ssl``) in a module of its own: modules are loaded
when one of their operations is first asked for.
"""
