{ fileSystems."/".device = "/dev/sda2"; }
