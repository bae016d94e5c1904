"""Sends a few requests with secrets in their query strings through Envoy, then ends."""

import http.client
import time

PATHS = ["/", "/?token=SECRET-1", "/missing?password=SECRET-2&page=2", "/a%3Fapi_key=SECRET-3", "/search?q=caf%C3%A9&session=SECRET-4"]

for attempt in range(60):
    try:
        http.client.HTTPConnection("127.0.0.1", 8080, timeout=2).request("GET", "/")
        break
    except OSError:
        time.sleep(0.5)

for round in range(10):
    for path in PATHS:
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=5)
        connection.request("GET", path, headers={"User-Agent": "traffic/1.0"})
        connection.getresponse().read()
        connection.close()
print("traffic:", 10 * len(PATHS), "requests sent")
