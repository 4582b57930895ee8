"""Put music under a video, and hand the result over: mix, time line, credits, licences."""
