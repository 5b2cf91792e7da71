// Uploads BYTES to URL, TIMES times, and prints the status of each response.
const http = require("http");

const [url, size, times] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const body = Buffer.alloc(size, "x");

function upload(left) {
  if (left === 0) return;
  const options = { method: "POST", headers: { "Content-Length": size }, agent: false };
  const request = http.request(url, options, (response) => {
    response.resume();
    response.on("end", () => {
      console.log(response.statusCode);
      upload(left - 1);
    });
  });
  request.end(body);
}

upload(times);
