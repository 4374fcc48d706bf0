"""Who performs attempts: builds the request, sends it, judges the answer, writes the image durably.

local   in this process
worker   the process of a worker, with a sender of its own
cluster   a cluster of Ray, workers that have proved that they can send, and which of them gets an attempt
remote   through the workers of a cluster, of which some may die
checker   flags images that came; decodes the suspicious ones in a child process
"""
