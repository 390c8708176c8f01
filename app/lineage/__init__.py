"""From votes to training and back: exports, child systems, alarms."""
