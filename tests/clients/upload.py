"""Uploads BYTES to URL, TIMES times, by http.client, and prints the status of each response."""

import http.client
import sys
import urllib.parse

url, size, times = urllib.parse.urlsplit(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for _ in range(times):
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
    connection.request("POST", url.path, body=b"x" * size)
    response = connection.getresponse()
    response.read()
    print(response.status)
    connection.close()
