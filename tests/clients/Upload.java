import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URI;

/** Uploads BYTES to URL, TIMES times buffered and TIMES times streamed, and prints the status of each response. */
public class Upload {
    public static void main(String[] arguments) throws Exception {
        byte[] body = new byte[Integer.parseInt(arguments[1])];
        int times = Integer.parseInt(arguments[2]);
        for (int turn = 0; turn < 2 * times; turn++) {
            var connection = (HttpURLConnection) URI.create(arguments[0]).toURL().openConnection();
            connection.setRequestMethod("POST");
            connection.setDoOutput(true);
            connection.setReadTimeout(30_000);
            if (turn >= times) {
                connection.setFixedLengthStreamingMode(body.length);
            }
            try (OutputStream output = connection.getOutputStream()) {
                output.write(body);
            }
            System.out.println(connection.getResponseCode());
            connection.disconnect();
        }
    }
}
