"""Where tasks run: one after another, in threads or processes of this machine, or on a cluster."""
