"""The built-in gateway beside a bare pass-through, llama-swap and LiteLLM, in front of the same real servers."""
