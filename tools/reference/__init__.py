"""The reference pages, made from the code: they cannot say anything else than it does."""
