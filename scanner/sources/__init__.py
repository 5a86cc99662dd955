"""Where weights come from: the hub, a folder, memory, behind one interface."""
