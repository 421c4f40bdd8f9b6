import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/**
 * Waits until every broker of a test cluster answers, and makes the gateway's topics.
 *
 * <p>One process for what Kafka's own tools need ten for: the tools create one topic per JVM.
 * Used by kafka.sh only, which gives each broker's address and id, and compiles this file once.
 *
 * <pre>Topics (wait|create|recreate) SECONDS_MAX ID@HOST:PORT...</pre>
 *
 * wait: nothing is created. create: what is missing. recreate: all of them, empty.
 * Exit code 0 when each broker answered for itself and every partition can be written to, else 1.
 */
public final class Topics {
    private static final List<String> NAMES = List.of(
            "odin.trades", "odin.liquidity", "odin.balances", "odin.metadata",
            "odin.social", "odin.community", "odin.creation", "odin.analytics");
    private static final int PARTITIONS = 12;
    private static final short REPLICATION_MAX = 3;
    /** Retention of an hour; records up to 4 MiB, because tests produce ones that the gateway must refuse. */
    private static final Map<String, String> CONFIG =
            Map.of("retention.ms", "3600000", "max.message.bytes", "4194304");
    private static final long POLL_MS = 50;

    public static void main(String[] arguments) throws Exception {
        String verb = arguments[0];
        long deadline = System.nanoTime() + Long.parseLong(arguments[1]) * 1_000_000_000L;
        List<String> brokers = Arrays.asList(arguments).subList(2, arguments.length);
        Set<Integer> ids = brokers.stream().map(b -> Integer.valueOf(b.split("@")[0])).collect(Collectors.toSet());
        // Each is asked by itself: the others may still count a killed one as alive.
        for (String broker : brokers) {
            try (Admin admin = connect(broker)) {
                await(deadline, broker + " to know the brokers " + ids, () -> liveIds(admin).containsAll(ids));
            }
        }
        try (Admin admin = connect(brokers.get(0))) {
            if (verb.equals("recreate")) {
                delete(admin, present(admin));
                await(deadline, "the topics to be deleted", () -> present(admin).isEmpty());
            }
            if (!verb.equals("wait")) {
                create(admin, ids.size());
                await(deadline, "the topics to exist", () -> present(admin).size() == NAMES.size());
            }
            await(deadline, "every partition to have its replicas in sync", () -> writable(admin, ids));
        }
    }

    private static Admin connect(String broker) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", broker.split("@")[1]);
        properties.put("reconnect.backoff.ms", "50");
        properties.put("reconnect.backoff.max.ms", "200");
        properties.put("request.timeout.ms", "2000");
        properties.put("default.api.timeout.ms", "4000");
        return Admin.create(properties);
    }

    private static Set<Integer> liveIds(Admin admin) throws Exception {
        return admin.describeCluster().nodes().get().stream().map(Node::id).collect(Collectors.toSet());
    }

    private static Set<String> present(Admin admin) throws Exception {
        Set<String> names = new TreeSet<>(admin.listTopics().names().get());
        names.retainAll(NAMES);
        return names;
    }

    private static void delete(Admin admin, Set<String> names) throws Exception {
        try {
            admin.deleteTopics(names).all().get();
        } catch (ExecutionException e) {
            if (!(e.getCause() instanceof UnknownTopicOrPartitionException)) throw e;
        }
    }

    private static void create(Admin admin, int brokers) throws Exception {
        short replication = (short) Math.min(REPLICATION_MAX, brokers);
        Set<String> present = present(admin);
        List<NewTopic> missing = NAMES.stream()
                .filter(name -> !present.contains(name))
                .map(name -> new NewTopic(name, PARTITIONS, replication).configs(CONFIG))
                .collect(Collectors.toList());
        admin.createTopics(missing).all().get();
    }

    /** Whether every partition that one of these brokers can lead is led by one, with all of theirs in sync. */
    private static boolean writable(Admin admin, Set<Integer> ids) throws Exception {
        for (TopicDescription topic : admin.describeTopics(present(admin)).allTopicNames().get().values()) {
            for (TopicPartitionInfo partition : topic.partitions()) {
                Set<Integer> inSync = among(partition.isr(), ids);
                boolean led = partition.leader() != null && ids.contains(partition.leader().id());
                boolean stranded = !led && inSync.isEmpty(); // only a broker that is down can lead it
                if (!stranded && !(led && inSync.equals(among(partition.replicas(), ids)))) return false;
            }
        }
        return true;
    }

    private static Set<Integer> among(List<Node> nodes, Set<Integer> ids) {
        Set<Integer> found = nodes.stream().map(Node::id).collect(Collectors.toCollection(HashSet::new));
        found.retainAll(ids);
        return found;
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    /** Asks again until the condition holds; a broker that does not answer yet counts as "not yet". */
    private static void await(long deadline, String what, Condition condition) throws Exception {
        Throwable last = null;
        while (System.nanoTime() < deadline) {
            try {
                if (condition.holds()) return;
            } catch (ExecutionException e) {
                last = e.getCause();
            }
            Thread.sleep(POLL_MS);
        }
        System.err.println("gave up waiting for " + what + (last == null ? "" : ": " + last));
        System.exit(1);
    }
}
