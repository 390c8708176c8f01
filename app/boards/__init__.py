"""What the votes say: leaderboards, stopping, snapshots."""
