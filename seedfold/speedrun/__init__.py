"""The speedrun: a fixed standard, run from launch to record, its phases timed and its claims checked again."""
