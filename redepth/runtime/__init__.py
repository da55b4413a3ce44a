"""Where and how things run: devices, execution of networks, executors, resumable tasks."""
