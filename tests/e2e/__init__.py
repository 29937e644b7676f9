"""Whole labs on this machine: real llama.cpp, LiteLLM and supervisord, and the command line as users type it."""
