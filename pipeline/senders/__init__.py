"""Who performs attempts: builds the request, sends it, judges the answer, writes the image durably.

local   in this process
checker   flags images that came; decodes the suspicious ones in a child process
"""
