// Fetches a URL with Java's own client, its standard configuration: java Fetch URL [HEADER VALUE]
// Prints the protocol, the status and the body.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

public class Fetch {
    public static void main(String[] words) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(words[0]));
        if (words.length > 2) {
            request.header(words[1], words[2]);
        }
        var response = HttpClient.newHttpClient().send(request.build(), BodyHandlers.ofString());
        System.out.println(response.version() + " " + response.statusCode());
        System.out.print(response.body());
    }
}
