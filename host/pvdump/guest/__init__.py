"""What a guest does for itself, without dom0: records of it, and the commands around arming."""
