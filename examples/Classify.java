// Classify a picture: `java Classify.java PICTURE [SERVER]`. Needs Java 17 or newer and nothing else.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;
import java.time.Duration;
import java.util.regex.Pattern;

public class Classify {
    // The JDK has no JSON parser: a program that uses the answer takes Jackson or Gson.
    private static final Pattern PREDICTION =
        Pattern.compile("\"label\": ?\"((?:[^\"\\\\]|\\\\.)*)\", ?\"index\": ?\\d+, ?\"probability\": ?([-+.\\deE]+)");

    public static void main(String[] arguments) throws Exception {
        var server = arguments.length > 1 ? arguments[1] : "http://127.0.0.1:3000";
        var request = HttpRequest.newBuilder(URI.create(server + "/classify?top_k=3"))
            .header("Content-Type", "application/octet-stream")
            .timeout(Duration.ofSeconds(30))
            .POST(BodyPublishers.ofFile(Path.of(arguments[0])))
            .build();
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        var response = client.send(request, BodyHandlers.ofString());
        if (response.statusCode() != 200) {
            System.err.println(response.statusCode() + ": " + response.body());
            System.exit(1);
        }
        var predictions = PREDICTION.matcher(response.body());
        while (predictions.find()) {
            System.out.printf("%.3f %s%n", Double.parseDouble(predictions.group(2)), predictions.group(1));
        }
    }
}
