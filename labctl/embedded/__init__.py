"""Real servers from package registries alone, for the local target: llama.cpp through xllamacpp, and LiteLLM's proxy.

Each module is a program (``python -m labctl.embedded.…``) with the command line of the original, so that an engine or
gateway renders the same arguments whether a container, a system binary or this Python runs them.
"""
