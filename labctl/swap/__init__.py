"""The built-in gateway: one OpenAI-compatible API that keeps resident whatever fits and swaps the rest.

Runs on its own (``python -m labctl.swap --config gateway.json``) and knows nothing of the rest of labctl: what it
serves, what each server takes on each card and how servers are started stands in one rendered file.

======================  ================================================================================
``config``              the rendered file as values
``view``, ``decide``    what is known at one moment → what to do next; pure
``loop``                the only writer of that state: takes events, asks ``decide``, starts the doing
``backends``            start, wait until healthy, stop and verify, through a driver
``drivers``             Docker, systemd, supervisor; a server that is always there
``serving``             listening: limits to what a stranger may cost
``app``, ``paths``      the API: who asks for what, and what comes back
``asked``, ``form``     a request, read no further than needed
``keys``, ``browser``   who may ask: keys and their limits; web pages
``forward``             passing on and back, over the connections of ``upstream``
``records``             requests for the list and the log; ``trace``: for a collector
``metrics``, ``host``   Prometheus text; memory, load and temperatures of the machine
``page``                the dashboard
======================  ================================================================================
"""
