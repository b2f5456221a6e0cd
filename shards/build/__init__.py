"""build: how a data set comes to be, whatever a shard is made of.

survey        what a folder already holds of its plans
"""
