"""Who performs attempts: builds the request, sends it, judges the answer, writes the image durably.

local     in this process
checker   flags images that came; decodes the suspicious ones in a child process
remote    in the workers of a cluster, of which some may die: what runs there, and which of them gets an attempt
cluster   a cluster of Ray, joined or started, and workers that have proved that they can send
"""
