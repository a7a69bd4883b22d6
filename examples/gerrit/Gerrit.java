import com.google.gerrit.pgm.Daemon;
import com.google.gerrit.pgm.Init;
import java.util.Arrays;

/** Runs Gerrit's own `init` or `daemon` from the jars on the class path; gerrit.sh calls it. */
class Gerrit {
  public static void main(String[] words) throws Exception {
    String[] rest = Arrays.copyOfRange(words, 1, words.length);
    int code = words[0].equals("init") ? new Init().main(rest) : new Daemon().main(rest);
    System.exit(code);
  }
}
