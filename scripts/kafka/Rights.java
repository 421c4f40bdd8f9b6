import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.acl.AccessControlEntryFilter;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourcePatternFilter;
import org.apache.kafka.common.resource.ResourceType;

/**
 * Takes the right to read a topic from everybody, or gives it back. Used by kafka.sh only.
 *
 * <pre>Rights (forbid|permit) HOST:PORT TOPIC</pre>
 */
public final class Rights {
    /** Who connects without a name: everybody. */
    private static final String EVERYBODY = "User:ANONYMOUS";

    public static void main(String[] arguments) throws Exception {
        String topic = arguments[2];
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", arguments[1]))) {
            if (arguments[0].equals("forbid")) {
                // A topic that has any rule allows nothing that no rule allows.
                admin.createAcls(List.of(
                        rule(topic, AclOperation.ALL, AclPermissionType.ALLOW),
                        rule(topic, AclOperation.READ, AclPermissionType.DENY))).all().get();
            } else {
                admin.deleteAcls(List.of(new AclBindingFilter(
                        new ResourcePatternFilter(ResourceType.TOPIC, topic, PatternType.LITERAL),
                        AccessControlEntryFilter.ANY))).all().get();
            }
        }
    }

    private static AclBinding rule(String topic, AclOperation operation, AclPermissionType permission) {
        return new AclBinding(
                new ResourcePattern(ResourceType.TOPIC, topic, PatternType.LITERAL),
                new AccessControlEntry(EVERYBODY, "*", operation, permission));
    }
}
