"""Kubernetes: a lab's objects, looked at and applied through the API of a cluster.

==============  ========================================================================================
``connect``     from a ``Cluster`` to a connection: the named context, KUBECONFIG, or the pod's own account
``api``         requests with connection reuse, a bounded number at a time, and retries where they are safe
``kinds``       which kinds the server has and at which address
``fields``      what a field manager owns of an object; pure
``prepare``     an object as it is sent: labels, digests, a Secret's values; pure
``text``        an object as text for people, secret values masked; pure
``observe``     what is there, and what the server's dry-run would make of it
``ready``       how a workload is doing, from its status; pure
``why``         the reason when it is not ready: pods, events, the last log lines
``execute``     waves of objects, each waited for; going back to the previous template
``lock``        one apply at a time, by a Lease
``record``      labctl's own objects: the ledger, the key of secret digests, the log of applies
``problems``    what the server says, in words
``backend``     all of it as ``labctl.hosts.backend.Backend``
==============  ========================================================================================

The ``kubernetes`` package is imported when a connection is made, and by ``connect`` alone.
"""
