from posewarper.files import replacing as replacing
