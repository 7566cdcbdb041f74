"""The run itself: its folder, its owner, its processes, what it does when it is told to leave or the disk refuses."""
