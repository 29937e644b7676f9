"""What people and programs see: values in, text or JSON out. Nothing in here decides anything."""
