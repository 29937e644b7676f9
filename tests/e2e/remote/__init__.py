"""Labs on other machines: real hosts (``tests/rig``), reached over SSH as users reach theirs."""
