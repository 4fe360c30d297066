"""Where version 3 has its helpers of the command line."""
